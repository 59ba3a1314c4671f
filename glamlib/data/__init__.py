"""What is seen: generated scenes, street scenes, one's own folder, volumes. Nothing here knows a model."""
