# In a file that ends in .tfquery.hcl, for `terraform query`.
list "vmetal_image" "debian" {
  provider = vmetal
  config {
    labels = { os = "debian" }
  }
}
