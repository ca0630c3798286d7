"""What runs elsewhere: worker pool, detached trainings, their queue, records and followers."""
