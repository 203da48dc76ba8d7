# In a file that ends in .tfquery.hcl, for `terraform query`.
list "vmetal_node_type" "gpu" {
  provider = vmetal
  config {
    labels = { class = "gpu" }
  }
}
