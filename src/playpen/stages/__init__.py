"""The verbs: one file each. Heavy libraries are imported inside functions, because a plan imports every stage it names."""
