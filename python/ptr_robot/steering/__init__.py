"""Another policy proposes actions, our critic chooses: for serve and rollout."""
