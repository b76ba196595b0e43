//! A real client: loads tenants, and holds the answers against what the world says they should be.

use std::time::Instant;

use futures::StreamExt;
use rolecall::proto::permission_service_client::PermissionServiceClient;
use tonic::{
    Request,
    metadata::{Ascii, MetadataValue},
    transport::{Channel, Endpoint},
};

use crate::{
    batch, check, message,
    world::{Asked, World},
};

pub struct Client {
    address: String,
    bearer: MetadataValue<Ascii>,
}

impl Client {
    pub fn new(address: &str, api_key: &str) -> Self {
        let bearer = format!("Bearer {api_key}").parse().unwrap();
        Self { address: format!("http://{address}"), bearer }
    }

    async fn connect(&self) -> PermissionServiceClient<Channel> {
        let channel = Endpoint::from_shared(self.address.clone()).unwrap().connect().await.unwrap();
        PermissionServiceClient::new(channel)
    }

    fn by<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.metadata_mut().insert("authorization", self.bearer.clone());
        request
    }

    /// Seconds from the first question about a tenant to its answer.
    pub async fn first_answer(&self, world: &World, tenant: usize) -> f64 {
        let asked = &world.questions_in(tenant, None, 1)[0];
        let mut client = self.connect().await;
        let start = Instant::now();
        client.check_permission(self.by(check(asked))).await.unwrap();
        start.elapsed().as_secs_f64()
    }

    /// Asks once about every tenant but the one of many members; seconds.
    pub async fn load_tenants(&self, world: &World) -> f64 {
        let client = self.connect().await;
        let start = Instant::now();
        futures::stream::iter(0..world.shape.tenants)
            .for_each_concurrent(8, |tenant| {
                let mut client = client.clone();
                async move {
                    let asked = &world.questions_in(tenant, None, 1)[0];
                    client.check_permission(self.by(check(asked))).await.unwrap();
                }
            })
            .await;
        start.elapsed().as_secs_f64()
    }

    /// All hot questions and a thousand of the random ones; the hot ones also in batches and as a
    /// stream.
    pub async fn verify(&self, world: &World, hot: &[Asked], random: &[Asked]) {
        let some = random.iter().step_by((random.len() / 1_000).max(1));
        let mut yes = 0;
        let mut client = self.connect().await;
        for asked in hot.iter().chain(some) {
            let answer = client.check_permission(self.by(check(asked))).await.unwrap();
            let allowed = answer.into_inner().allowed;
            assert_eq!(allowed, world.expected(asked), "{asked:?}");
            yes += usize::from(allowed);
        }
        let mut sorted = hot.to_vec();
        sorted.sort_by(|a, b| a.tenant.cmp(&b.tenant));
        for asked in sorted.chunk_by(|a, b| a.tenant == b.tenant) {
            let answer = client.batch_check_permissions(self.by(batch(asked))).await.unwrap();
            let results = answer.into_inner().results;
            assert_eq!(results.len(), asked.len());
            for (asked, result) in asked.iter().zip(results) {
                assert_eq!((result.allowed, result.error), (world.expected(asked), None));
            }
        }
        let messages: Vec<_> = hot.iter().enumerate().map(message).collect();
        let asked = self.by(futures::stream::iter(messages));
        let mut answers = client.check_permission_stream(asked).await.unwrap().into_inner();
        let mut count = 0;
        while let Some(answer) = answers.next().await.transpose().unwrap() {
            let asked = &hot[answer.correlation_id as usize];
            assert_eq!((answer.allowed, answer.error), (world.expected(asked), None));
            count += 1;
        }
        assert_eq!(count, hot.len());
        println!(
            "verified: of {} questions {yes} allowed, as expected\n",
            hot.len() + random.len().min(1_000)
        );
    }
}
