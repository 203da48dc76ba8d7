resource "vmetal_node_type" "small" {
  name      = "small"
  selector  = { class = "small" }
  resources = { cpu = "32", memory = "128Gi" }
  image     = "debian"
}
