output "mac" {
  value = provider::vmetal::normalize_mac("52-54-00-AA-00-01")
}
