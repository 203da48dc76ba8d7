locals {
  base = <<-EOT
    #cloud-config
    timezone: UTC
    packages: [chrony]
  EOT
  gpu  = <<-EOT
    #cloud-config
    runcmd:
      - [nvidia-smi, -pm, "1"]
  EOT
}

output "user_data" {
  value = provider::vmetal::render_user_data([local.base, local.gpu], ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAA admin"])
}
