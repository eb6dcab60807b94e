# What massdriver.yaml declares. `mass bundle build` writes the variables that it does not find into
# _massdriver_variables.tf; they are all here, because the generated type of kubernetes_cluster would know only what the
# organisation's resource type knows.

variable "kubernetes_cluster" {
  description = "The artifact of k8s-token"
  sensitive   = true
  type = object({
    authentication = object({
      cluster = object({
        server                     = string
        certificate-authority-data = string
      })
      user = object({
        token = string
      })
    })
    # What follows is handed through from the cluster's own connection, as far as that has it.
    namespace = optional(string)
    infrastructure = optional(object({
      arn             = optional(string)
      oidc_issuer_url = optional(string)
      ari             = optional(string)
      grn             = optional(string)
    }), {})
    specs = optional(object({
      kubernetes = optional(object({
        cloud            = optional(string)
        distribution     = optional(string)
        version          = optional(string)
        platform_version = optional(string)
      }), {})
    }), {})
  })
}

variable "namespace" {
  type = string
}

variable "greeting" {
  type    = string
  default = "Hello"
}

variable "md_metadata" {
  type = object({
    name_prefix  = string
    default_tags = optional(map(string), {})
  })
}
