//! Which tenants' facts are in memory: those that the budget has room for, and those that are wanted
//! before anybody asks.

use rolecall::{
    ids::SubjectId,
    proto as pb,
    secret::Keys,
    server::{Server, Settings},
};

use super::world::{Api, World, check, settings};

const TENANTS: usize = 24;

async fn world_of_many() -> World {
    let mut world = World::start().await;
    for n in 0..TENANTS {
        let administrator = pb::TenantAdministrator {
            email: format!("first@t{n}.example"),
            first_name: "First".into(),
            ..Default::default()
        };
        let create = pb::CreateTenantRequest {
            key: format!("t{n}"),
            display_name: format!("Tenant {n}"),
            administrator: Some(administrator),
            ..Default::default()
        };
        world.operator.tenants().create_tenant(create).await.unwrap();
    }
    // The second server would send them elsewhere.
    for n in 0..TENANTS {
        world.mail_to(&format!("first@t{n}.example")).await;
    }
    world
}

fn another(world: &World) -> Settings {
    let keys = Keys::parse(&Keys::generate().unwrap()).unwrap();
    settings(&world.database, keys, "file:///dev/null")
}

fn loaded(server: &Server) -> usize {
    server.app.replica.facts().loaded().count()
}

#[tokio::test]
async fn tenants_beyond_the_budget_are_forgotten_and_read_again() {
    let world = world_of_many().await;
    let subject = world.server.app.replica.facts().system().unwrap().subjects().next().unwrap();
    ask_all(&world.operator, &subject).await;
    let budget = bytes(&world.server) / 2;
    let server = Server::start(Settings { facts_memory: budget, ..another(&world) }).await.unwrap();
    let api = world.operator.at(&server).await;
    for _ in 0..3 {
        ask_all(&api, &subject).await;
        assert!(bytes(&server) <= budget, "{} bytes of {budget}", bytes(&server));
        assert!((2..TENANTS).contains(&loaded(&server)), "{} are loaded", loaded(&server));
    }
    server.stop().await;
    world.stop().await;
}

fn bytes(server: &Server) -> usize {
    server.app.replica.facts().loaded().map(|tenant| tenant.bytes()).sum()
}

async fn ask_all(api: &Api, subject: &SubjectId) {
    let asked = (0..TENANTS).map(|n| {
        let api = api.clone();
        let question = check(&format!("t{n}"), &subject.to_string(), "iam.members.read", "");
        async move { api.permissions().check_permission(question).await }
    });
    for answer in futures::future::join_all(asked).await {
        assert_eq!(answer.unwrap().into_inner().reason(), pb::Reason::Allowed);
    }
}

#[tokio::test]
async fn tenants_that_are_wanted_are_there_before_the_first_question() {
    let world = world_of_many().await;
    let wanted = || vec!["t3".to_owned(), "t5".to_owned()];
    let server = Server::start(Settings { warm_tenants: wanted(), ..another(&world) }).await;
    let server = server.unwrap();
    assert_eq!(loaded(&server), 3, "two and the installation");
    server.stop().await;
    let unknown = vec!["nowhere".to_owned()];
    let refused = Server::start(Settings { warm_tenants: unknown, ..another(&world) }).await;
    let message = refused.err().expect("a name that is nobody's is refused").to_string();
    assert!(message.contains("nowhere"), "{message}");
    world.stop().await;
}
