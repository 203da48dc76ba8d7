# In a file that ends in .tfquery.hcl, for `terraform query`.
list "vmetal_policy" "mine" {
  provider = vmetal
  config {
    labels = { team = "platform" }
  }
}
