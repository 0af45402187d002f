"""What can be set for how the edge treats an app's requests: a module for each part of the policy."""
