variable "kubeconfig" {
  type      = string
  sensitive = true
}

resource "vmetal_tenant_cluster" "acme" {
  name                  = "acme"
  kubeconfig_wo         = var.kubeconfig
  kubeconfig_wo_version = 1
  labels                = { tenant = "acme" }

  # At most 8 hosts at one time, and 64 GPUs on them.
  quota = {
    hosts     = 8
    resources = { "nvidia.com/gpu" = "64" }
  }
}
