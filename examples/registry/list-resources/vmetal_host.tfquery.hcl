# In a file that ends in .tfquery.hcl, for `terraform query`.
list "vmetal_host" "rack1" {
  provider = vmetal
  config {
    labels = { rack = "r1" }
  }
}
