"""The deployment pipeline: knows compose applications, knows nothing of the agent."""
