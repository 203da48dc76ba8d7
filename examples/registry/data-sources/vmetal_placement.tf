data "vmetal_placement" "next" {
  resources = { cpu = "16", memory = "64Gi" }
  size      = 3
}

output "next" {
  value = "${data.vmetal_placement.next.cost}: ${data.vmetal_placement.next.reason}"
}
