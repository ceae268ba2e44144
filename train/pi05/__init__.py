"""π0.5 in PyTorch, under openpi's parameter names, at any width: the real checkpoint's and the reference policy's."""
