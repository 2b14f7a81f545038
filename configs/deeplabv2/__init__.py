"""The MMSegmentation configs that ship with the package; installed as `pseudolabel_train.configs`."""
