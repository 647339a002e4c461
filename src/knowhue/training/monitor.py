"""Names what goes wrong in adversarial training, from one epoch's numbers; pure."""

from collections.abc import Mapping

SATURATED = 0.97
GRAY_RATIO = 0.1


def find_faults(train: Mapping[str, float], validation: Mapping[str, float]) -> list[str]:
    """Plain sentences on an epoch, none if all is well.

    A discriminator that is nearly always right tells the generator little (Arjovsky and Bottou 2017); colours
    of almost no chroma are the colorizer's collapse.

    >>> find_faults({"discriminator_real": 0.99, "discriminator_fake": 0.98}, {})
    ['discriminator saturated: it is right on 99 % of real and 98 % of generated patches']
    """
    faults = []
    real, fake = train.get("discriminator_real", 0.0), train.get("discriminator_fake", 0.0)
    if min(real, fake) > SATURATED:
        faults.append(
            f"discriminator saturated: it is right on {100 * real:.0f} % of real and {100 * fake:.0f} % of "
            "generated patches"
        )
    if validation.get("chroma_ratio", 1.0) < GRAY_RATIO:
        faults.append(
            f"colours collapsed to gray: mean chroma is {validation['chroma_ratio']:.2f} of the true one"
        )
    return faults
