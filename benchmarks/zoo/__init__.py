"""Does the engine prune any network? Architectures of torchvision, timm and our own, each checked end to end."""
