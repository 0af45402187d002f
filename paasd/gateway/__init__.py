"""Policies of the edge by app: one module a part, each with its settings and what the edge is told of them."""
