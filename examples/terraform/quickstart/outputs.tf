output "decision" {
  description = "What was chosen, what it costs, and why."
  value = {
    node_type = vmetal_tenant_node.worker.chosen_node_type
    host      = vmetal_tenant_node.worker.host
    cost      = vmetal_tenant_node.worker.cost
    reason    = vmetal_tenant_node.worker.decision_reason
  }
}
