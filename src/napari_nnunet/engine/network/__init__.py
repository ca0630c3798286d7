"""The U-Nets and what runs them: torch, OpenVINO, devices."""
