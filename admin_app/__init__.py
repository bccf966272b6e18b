"""The admin role: topics, instances, messages and monitoring, as an API and as pages."""
