ephemeral "vmetal_join_token" "acme" {
  cluster = "acme"
  reason  = "a node outside of vmetal"
}

# Handed on to where it is not kept: a write-only attribute, or a provisioner.
resource "vmetal_tenant_node" "bastion" {
  name         = "bastion"
  cluster      = "acme"
  node_type    = "small"
  user_data_wo = <<-EOT
    #cloud-config
    write_files:
      - path: /usr/local/sbin/join-cluster
        permissions: "0700"
        content: ${ephemeral.vmetal_join_token.acme.join_command}
  EOT
}
