"""Raw datasets on disk: dataset.json, imagesTr, labelsTr, and which files belong together."""
