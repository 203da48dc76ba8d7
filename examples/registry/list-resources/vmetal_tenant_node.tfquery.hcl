# In a file that ends in .tfquery.hcl, for `terraform query`.
list "vmetal_tenant_node" "blue" {
  provider = vmetal
  config {
    labels = { team = "blue" }
  }
}
