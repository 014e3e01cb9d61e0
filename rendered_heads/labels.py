"""What a pixel shows: the values of RenderedHead.segments."""

BACKGROUND_LABEL, FACE_LABEL, HAIR_LABEL, CLOTHES_LABEL, EYE_LABEL, MOUTH_LABEL, WORN_LABEL = range(7)
