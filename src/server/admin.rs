//! The admin port: gRPC health for probes, metrics for Prometheus. Plain text, for inside the cluster.

use std::time::Duration;

use axum::{Router, routing::get};
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;
use tonic::service::Routes;
use tonic_health::pb::health_server::{Health, HealthServer};

/// Serves until it is aborted.
pub async fn serve<H: Health>(
    socket: TcpListener,
    health: HealthServer<H>,
    metrics: PrometheusHandle,
) {
    let shown = metrics.clone();
    let pages = Router::new().route("/metrics", get(move || async move { shown.render() }));
    let router = pages.merge(Routes::new(health).prepare().into_axum_router());
    tokio::select! {
        served = async { axum::serve(socket, router).await } => {
            if let Err(error) = served {
                tracing::error!(%error, "the admin port failed");
            }
        }
        () = sum_up(metrics) => {}
    }
}

/// Adds new durations to their buckets now and then: until then each is kept by itself.
async fn sum_up(metrics: PrometheusHandle) {
    const EVERY: Duration = Duration::from_secs(5);
    loop {
        tokio::time::sleep(EVERY).await;
        metrics.run_upkeep();
    }
}
