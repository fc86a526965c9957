"""What runs inside a sandbox: standard library only, sent there as text, so that nothing of ours need be readable there."""
