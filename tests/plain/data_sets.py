"""What data sets call their classes, written down from their own lists."""


def listed(text: str) -> list[str]:
    return [name.strip() for name in text.split(",")]


# COCO's things by category id, from 1; "-" was given up before the annotations were made.
COCO_CATEGORIES = {
    number: name
    for number, name in enumerate(
        listed("""
person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, fire hydrant, -, stop sign,
parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, bear, zebra, giraffe, -, backpack, umbrella, -, -,
handbag, tie, suitcase, frisbee, skis, snowboard, sports ball, kite, baseball bat, baseball glove, skateboard,
surfboard, tennis racket, bottle, -, wine glass, cup, fork, knife, spoon, bowl, banana, apple, sandwich, orange,
broccoli, carrot, hot dog, pizza, donut, cake, chair, couch, potted plant, bed, -, dining table, -, -, toilet, -, tv,
laptop, mouse, remote, keyboard, cell phone, microwave, oven, toaster, sink, refrigerator, -, book, clock, vase,
scissors, teddy bear, hair drier, toothbrush
"""),
        1,
    )
    if name != "-"
}

# COCO-Stuff's labels 92 to 182 in order, each with its super-category.
COCO_STUFF = listed("""
banner textile, blanket textile, branch plant, bridge building, building-other building, bush plant,
cabinet furniture-stuff, cage structural, cardboard raw-material, carpet floor, ceiling-other ceiling,
ceiling-tile ceiling, cloth textile, clothes textile, clouds sky, counter furniture-stuff, cupboard furniture-stuff,
curtain textile, desk-stuff furniture-stuff, dirt ground, door-stuff furniture-stuff, fence structural,
floor-marble floor, floor-other floor, floor-stone floor, floor-tile floor, floor-wood floor, flower plant, fog water,
food-other food-stuff, fruit food-stuff, furniture-other furniture-stuff, grass plant, gravel ground,
ground-other ground, hill solid, house building, leaves plant, light furniture-stuff, mat textile, metal raw-material,
mirror-stuff furniture-stuff, moss plant, mountain solid, mud ground, napkin textile, net structural,
paper raw-material, pavement ground, pillow textile, plant-other plant, plastic raw-material, platform ground,
playingfield ground, railing structural, railroad ground, river water, road ground, rock solid, roof building,
rug textile, salad food-stuff, sand ground, sea water, shelf furniture-stuff, sky-other sky, skyscraper building,
snow ground, solid-other solid, stairs furniture-stuff, stone solid, straw plant, structural-other structural,
table furniture-stuff, tent building, textile-other textile, towel textile, tree plant, vegetable food-stuff,
wall-brick wall, wall-concrete wall, wall-other wall, wall-panel wall, wall-stone wall, wall-tile wall,
wall-wood wall, water-other water, waterdrops water, window-blind window, window-other window, wood solid
""")

# COCO's super-category of the last thing of each run of category ids, 1 to 91.
COCO_THINGS = {
    1: "person",
    9: "vehicle",
    15: "outdoor",
    25: "animal",
    33: "accessory",
    43: "sports",
    51: "kitchen",
    61: "food-things",
    71: "furniture-things",
    77: "electronic",
    83: "appliance",
    91: "indoor",
}

# The order in which unsupervised segmentation numbers the super-categories.
COCO_27 = listed("""
electronic, appliance, food-things, furniture-things, indoor, kitchen, accessory, animal, outdoor, person, sports,
vehicle, ceiling, floor, food-stuff, furniture-stuff, raw-material, textile, wall, window, building, ground, plant, sky,
solid, structural, water
""")

# Pascal Context's 59 classes in the order of MMSegmentation.
CONTEXT = listed("""
aeroplane, bag, bed, bedclothes, bench, bicycle, bird, boat, book, bottle, building, bus, cabinet, car, cat, ceiling,
chair, cloth, computer, cow, cup, curtain, dog, door, fence, floor, flower, food, grass, ground, horse, keyboard, light,
motorbike, mountain, mouse, person, plate, platform, pottedplant, road, rock, sheep, shelves, sidewalk, sign, sky, snow,
sofa, table, track, train, tree, truck, tvmonitor, wall, water, window, wood
""")

# Cityscapes' labels with an id, from 0.
CITYSCAPES = listed("""
unlabeled, ego vehicle, rectification border, out of roi, static, dynamic, ground, road, sidewalk, parking, rail track,
building, wall, fence, guard rail, bridge, tunnel, pole, polegroup, traffic light, traffic sign, vegetation, terrain,
sky, person, rider, car, truck, bus, caravan, trailer, train, motorcycle, bicycle
""")


def super_category(value: int) -> str:
    """That of a value in COCO-Stuff's pixel maps, which is the label minus 1."""
    if value < 91:
        return next(name for last, name in COCO_THINGS.items() if value + 1 <= last)
    return COCO_STUFF[value - 91].split()[1]
