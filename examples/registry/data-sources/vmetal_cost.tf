data "vmetal_cost" "month" {
  size      = 4
  hours     = 720
  resources = { cpu = "8", memory = "32Gi" }
}

output "per_month" {
  value = data.vmetal_cost.month.micros / 1000000
}
