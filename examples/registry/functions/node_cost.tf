output "micros" {
  value = provider::vmetal::node_cost({ cpu = "64", memory = "256Gi", "nvidia.com/gpu" = "4" })
}
