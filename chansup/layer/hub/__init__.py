"""The hub: the process that keeps queues and groups for the processes of one site."""
