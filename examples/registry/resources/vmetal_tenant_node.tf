resource "vmetal_tenant_node" "worker" {
  name         = "worker"
  cluster      = "acme"
  requirements = [{ key = "class", operator = "In", values = ["small", "large"] }]
  resources    = { cpu = "16", memory = "64Gi" }
  drain        = { timeout = "10m" }
}
