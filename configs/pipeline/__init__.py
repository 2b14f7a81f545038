"""The experiment files that ship with the package; installed as `pseudolabel.pipelines`."""
