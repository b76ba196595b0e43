//! The admin port: gRPC health for probes, metrics for Prometheus. Plain text, for inside the cluster.

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
    let pages = Router::new().route("/metrics", get(move || async move { metrics.render() }));
    let router = pages.merge(Routes::new(health).prepare().into_axum_router());
    if let Err(error) = axum::serve(socket, router).await {
        tracing::error!(%error, "the admin port failed");
    }
}
