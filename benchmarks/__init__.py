"""Measurements of chansup beside what people use today. Each script stands alone, see README.md."""
