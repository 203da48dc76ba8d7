# In a file that ends in .tfquery.hcl, for `terraform query`.
list "vmetal_network" "tenants" {
  provider = vmetal
  config {
    labels = { site = "fra1" }
  }
}
