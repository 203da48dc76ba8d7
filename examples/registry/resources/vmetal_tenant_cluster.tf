variable "kubeconfig" {
  type      = string
  sensitive = true
}

resource "vmetal_tenant_cluster" "acme" {
  name                  = "acme"
  kubeconfig_wo         = var.kubeconfig
  kubeconfig_wo_version = 1
  labels                = { tenant = "acme" }
}
