resource "vmetal_image" "debian" {
  name   = "debian"
  source = "/srv/images/debian-13-kubernetes.qcow2"
}
