locals {
  # All but the authentication may be shown.
  namespace      = nonsensitive(coalesce(var.kubernetes_cluster.namespace, var.namespace))
  infrastructure = nonsensitive(var.kubernetes_cluster.infrastructure)
  kubernetes     = nonsensitive(var.kubernetes_cluster.specs.kubernetes)

  # Of at most one cloud; of none when the cluster's own connection does not tell.
  cluster = coalesce(local.infrastructure.arn, local.infrastructure.ari, local.infrastructure.grn, "unknown")
}

resource "kubernetes_config_map_v1" "facts" {
  metadata {
    name      = var.md_metadata.name_prefix
    namespace = local.namespace
  }

  data = {
    greeting = var.greeting
    cluster  = local.cluster
    version  = coalesce(local.kubernetes.version, "unknown")
  }
}
