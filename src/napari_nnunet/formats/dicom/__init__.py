"""DICOM: series, one file per slice or one file with frames, are read as volumes; labels go out as DICOM-SEG."""
