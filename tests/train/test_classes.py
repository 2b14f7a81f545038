"""Heads, training and validation data that do not speak of the same classes are refused, with both numbers."""

from types import SimpleNamespace

import pytest
from mmengine.config import Config

from pseudolabel.vocabulary import load_vocabulary
from pseudolabel_train.classes import check_heads, check_same
from pseudolabel_train.config import find_config
from pseudolabel_train.errors import ConfigError
from pseudolabel_train.loading import dataset_metainfo

VOC = load_vocabulary("voc")


def data(classes, reduce_zero_label: bool = False, vocabulary=None) -> SimpleNamespace:
    return SimpleNamespace(
        metainfo={"classes": tuple(classes), "reduce_zero_label": reduce_zero_label}, vocabulary=vocabulary
    )


def named(name: str) -> SimpleNamespace:
    vocabulary = load_vocabulary(name)
    return SimpleNamespace(metainfo=dataset_metainfo(vocabulary), vocabulary=vocabulary)


def test_every_head_has_the_datas_classes():
    cfg = Config.fromfile(find_config("deeplabv2_r101_voc12_coco"))
    check_heads(cfg, "train_dataloader", named("voc"))
    cfg.model.auxiliary_head = [{"type": "FCNHead", "num_classes": 19}, {"type": "FCNHead", "num_classes": 21}]
    expected = r"auxiliary_head\.0\.num_classes is 19, but train_dataloader has 21 classes \(vocabulary 'voc'"
    with pytest.raises(ConfigError, match=rf"{expected}.*set `cfg_options` model\.auxiliary_head\.0\.num_classes=21"):
        check_heads(cfg, "train_dataloader", named("voc"))
    cfg.model.auxiliary_head = None
    with pytest.raises(ConfigError, match=r"decode_head\.num_classes is 21, but test_dataloader has 7 classes"):
        check_heads(cfg, "test_dataloader", named("shapes"))


def test_training_and_validation_have_the_same_classes():
    from mmseg.datasets import PascalVOCDataset

    check_same(named("voc"), named("voc"))
    check_same(named("voc"), data(PascalVOCDataset.METAINFO["classes"]))
    check_same(named("voc"), data(["bg", "airplane", *VOC.names[2:]]))  # a synonym of the vocabulary
    with pytest.raises(ConfigError, match=r"21 classes .* val_dataloader 7 classes .*both need the same"):
        check_same(named("voc"), named("shapes"))
    swapped = ["background", "bicycle", "aeroplane", *VOC.names[3:]]
    with pytest.raises(ConfigError, match="class 1 is 'aeroplane' in training and 'bicycle' in validation"):
        check_same(named("voc"), data(swapped))


def test_zero_is_a_class_in_training_and_validation_or_in_neither():
    assert dataset_metainfo(load_vocabulary("cityscapes27"))["reduce_zero_label"]
    check_same(named("cityscapes27"), named("cityscapes27"))
    names = dataset_metainfo(load_vocabulary("cityscapes27"))["classes"]
    check_same(named("cityscapes27"), data(names, reduce_zero_label=True))
    with pytest.raises(ConfigError, match="only in train_dataloader is 0 in a mask no class"):
        check_same(named("cityscapes27"), data(names))
