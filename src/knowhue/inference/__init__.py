"""Use a trained model: colour and classify images, folders, archives and videos."""
