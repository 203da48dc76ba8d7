resource "vmetal_node_pool" "gpu" {
  name      = "gpu"
  size      = 16
  cluster   = "acme"
  resources = { "nvidia.com/gpu" = "8" }
  together  = { same = "nvlink-domain" }
}
