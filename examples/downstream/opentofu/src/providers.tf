terraform {
  required_providers {
    kubernetes = {
      source  = "hashicorp/kubernetes"
      version = "~> 3.0"
    }
  }
}

# The artifact alone: no kubeconfig, no cloud login.
provider "kubernetes" {
  host                   = var.kubernetes_cluster.authentication.cluster.server
  cluster_ca_certificate = base64decode(var.kubernetes_cluster.authentication.cluster.certificate-authority-data)
  token                  = var.kubernetes_cluster.authentication.user.token
}
