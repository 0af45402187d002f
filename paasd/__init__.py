"""paasd: a self-hosted platform as a service. See docs/architecture.md for the flow and the owners."""

__version__ = "0.1.0"
