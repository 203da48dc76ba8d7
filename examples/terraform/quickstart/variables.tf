variable "servers" {
  description = "The servers, by name. `vmetal-lab tfvars` and `make demo` write this for the virtual lab."
  type = map(object({
    bmc_address            = string
    bmc_username           = string
    bmc_certificate_sha256 = string
    boot_mac               = string
    firmware               = string
    size                   = string
  }))
}

variable "bmc_passwords" {
  description = "The BMC passwords, by server. They reach the engine and are kept neither in plans nor in the state."
  type        = map(string)
  ephemeral   = true
}

variable "kubeconfig_file" {
  description = "A kubeconfig of the cluster to join, with the right to make bootstrap tokens and to delete nodes."
  type        = string
}

variable "node_image" {
  description = "A raw or qcow2 image with cloud-init, containerd, kubelet and kubeadm: a path on the engine's machine, or a URL."
  type        = string
}
