"""References with a better and a worse candidate, written for these tests: (why, reference, better, worse, strict).

Where ``strict`` is False the worse one must only not gain.
"""

WHOLE = (
    "There is a large right pleural effusion. Left upper lobe nodule measuring 12 mm. Mild interstitial edema. "
    "Right internal jugular catheter with tip in the superior vena cava. No pneumothorax. The bones are intact."
)
HALF = "Large right pleural effusion. Mild interstitial edema. No pneumothorax."
NORMAL = (
    "Heart size within normal limits. Lungs are clear of focal consolidation. No effusion. No pneumothorax. "
    "Visualized osseous structures are unremarkable."
)
HONEST = "Normal heart size. No focal consolidation, pleural effusion or pneumothorax. No bony abnormality."

TRIPLES: list[tuple[str, str, str, str, bool]] = [
    # padding with what is minor
    ("padding: scar", WHOLE, HALF, f"{HALF} Apical scarring.", False),
    ("padding: granuloma", WHOLE, HALF, f"{HALF} Calcified granuloma.", False),
    ("padding: degeneration", WHOLE, HALF, f"{HALF} Degenerative changes of the thoracic spine.", False),
    ("padding: deformity", WHOLE, HALF, f"{HALF} Chronic rib deformity. Scoliosis. Tortuous aorta.", False),
    ("padding: general disease", WHOLE, HALF, f"{HALF} There is pulmonary disease.", False),
    (
        "minor kin does not stand in",
        "Left basal atelectasis. No effusion.",
        "No effusion.",
        "Scarring. No effusion.",
        False,
    ),
    (
        "a minor finding is not the reference's",
        "Compression fracture of T8.",
        "T8 compression fracture.",
        "Deformity.",
        True,
    ),
    # hiding places
    ("hidden: correlate for", WHOLE, HALF, f"{HALF} Correlate for left pneumonia and aortic aneurysm.", True),
    ("hidden: concern", WHOLE, HALF, f"{HALF} If there is concern for rib fracture or lung mass, obtain CT.", True),
    ("hidden: brackets", WHOLE, HALF, f"{HALF} [Left pneumothorax. Pneumoperitoneum.]", True),
    ("hidden: evaluate", WHOLE, HALF, f"{HALF} Recommend CT to evaluate for aortic dissection.", True),
    ("hidden: rule out", WHOLE, HALF, f"{HALF} Rule out lung mass.", True),
    ("hidden: clinical suspicion", WHOLE, HALF, f"{HALF} Clinical correlation for tuberculosis is advised.", True),
    ("hidden: hedge", WHOLE, HALF, f"{HALF} Cannot exclude left lower lobe pneumonia.", True),
    ("hidden in a normal report", NORMAL, HONEST, f"{HONEST} Correlate for lung mass.", True),
    ("hidden: brackets in a normal report", NORMAL, HONEST, f"{HONEST} [Right lung mass.]", True),
    # claims that the lexicon does not know
    ("unknown: embolism", WHOLE, HALF, f"{HALF} Saddle pulmonary embolism.", True),
    ("unknown: abscess", NORMAL, HONEST, f"{HONEST} Right lower lobe abscess.", True),
    ("unknown: rupture", NORMAL, HONEST, f"{HONEST} Rupture of the diaphragm.", True),
    ("unknown: -oma", NORMAL, HONEST, f"{HONEST} Findings of mesothelioma.", True),
    ("unknown: -itis", NORMAL, HONEST, f"{HONEST} Acute mediastinitis.", True),
    ("unknown: hedged", NORMAL, HONEST, f"{HONEST} Possible pulmonary infarct.", True),
    ("unknown: denied is no claim", NORMAL, f"{HONEST} No pulmonary embolism.", f"{HONEST} Pulmonary embolism.", True),
    ("unknown: the reference knows", "Lung abscess on the right.", "Right lung abscess.", "Clear lungs.", True),
    (
        "unknown: the reference denies",
        "No sarcoidosis. Clear lungs.",
        "Clear lungs.",
        "Clear lungs. Sarcoidosis.",
        True,
    ),
    # contradictions
    ("denied: one", WHOLE, HALF, f"{HALF} No pleural effusion.", True),
    ("denied: all", WHOLE, HALF, f"{HALF} No edema. No effusion.", True),
    (
        "denied: heart",
        "The heart is enlarged. No effusion.",
        "Enlarged heart. No effusion.",
        "Enlarged heart. No effusion. The heart is normal in size.",
        True,
    ),
    ("denied: in general", WHOLE, HALF, f"{HALF} The lungs are clear.", True),
    ("denied: a denial that is also asserted", NORMAL, HONEST, f"{HONEST} There is a pneumothorax.", True),
    (
        "other side is no contradiction",
        "Left effusion. No right effusion.",
        "Left effusion. No right effusion.",
        "Left effusion. No left effusion.",
        True,
    ),
    (
        "no large one is no contradiction",
        "Small left effusion. No large effusion.",
        "Small left effusion. No large effusion.",
        "No effusion.",
        True,
    ),
    # hedges
    ("hedge: one", "Right pneumothorax.", "Right pneumothorax.", "Possible right pneumothorax.", True),
    (
        "hedge: more is less",
        WHOLE,
        HALF,
        "Possible large right effusion. Question of mild edema. No pneumothorax.",
        True,
    ),
    (
        "hedge: false is not free",
        "Right pneumothorax.",
        "Right pneumothorax.",
        "Right pneumothorax. Possible mass.",
        True,
    ),
    (
        "hedge: everything",
        WHOLE,
        HALF,
        "Possible pneumonia, effusion, pneumothorax, edema, nodule, mass or fracture.",
        True,
    ),
    ("suspicion kept", "Possible left basal pneumonia.", "Possible left basal pneumonia.", "No pneumonia.", True),
    (
        "suspicion left out",
        "Possible left basal pneumonia. No effusion.",
        "Possible left pneumonia. No effusion.",
        "No effusion.",
        True,
    ),
    ("hedging beats denying", "Right pneumothorax.", "Possible right pneumothorax.", "No pneumothorax.", True),
    # silence, and error, about an attribute
    ("severity: silent", "Severe pulmonary edema.", "Severe pulmonary edema.", "Pulmonary edema.", True),
    ("severity: wrong is worse", "Severe pulmonary edema.", "Pulmonary edema.", "Mild pulmonary edema.", True),
    ("side: wrong is worse", "Right pneumothorax.", "Pneumothorax.", "Left pneumothorax.", True),
    ("place: silent", "Nodule in the left upper lobe.", "Left upper lobe nodule.", "Left nodule.", True),
    ("place: wrong is worse", "Nodule in the left upper lobe.", "Left nodule.", "Left lower lobe nodule.", True),
    ("change: silent", "Edema has worsened.", "Worsening edema.", "Edema.", True),
    ("change: wrong is worse", "Edema has worsened.", "Edema.", "Edema has improved.", True),
    ("change: invented", "Left effusion.", "Left effusion.", "Increased left effusion.", True),
    ("heard is better than nothing", "Large left pneumothorax.", "Pneumothorax.", "Clear lungs.", True),
    (
        "size: silent",
        "A 28 mm nodule in the right upper lobe.",
        "Right upper lobe nodule of 28 mm.",
        "Right upper lobe nodule.",
        True,
    ),
    (
        "size: wrong is worse",
        "A 28 mm nodule in the right upper lobe.",
        "Right upper lobe nodule.",
        "4 mm right upper lobe nodule.",
        True,
    ),
    (
        "count: wrong",
        "Three nodules in the left lung.",
        "Several left lung nodules.",
        "A single left lung nodule.",
        True,
    ),
    (
        "age: wrong",
        "Acute fracture of the right clavicle.",
        "Acute right clavicle fracture.",
        "Healed right clavicle fracture.",
        True,
    ),
    (
        "age: wrong is worse than silent",
        "Acute right rib fracture.",
        "Right rib fracture.",
        "Old right rib fracture.",
        True,
    ),
    (
        "tip: wrong",
        "Endotracheal tube tip 4 cm above the carina.",
        "Endotracheal tube ends above the carina.",
        "Endotracheal tube in the right main bronchus.",
        True,
    ),
    (
        "tip: wrong is worse than silent",
        "Nasogastric tube with tip in the stomach.",
        "Nasogastric tube in place.",
        "Nasogastric tube with tip in the esophagus.",
        True,
    ),
    (
        "a tracheostomy is no endotracheal tube",
        "Tracheostomy tube in place.",
        "Tracheostomy tube.",
        "Endotracheal tube.",
        True,
    ),
    (
        "an endotracheal tube is no tracheostomy",
        "Endotracheal tube in good position.",
        "ET tube.",
        "Tracheostomy tube.",
        True,
    ),
    # general words
    ("general: opacity", "Left lower lobe pneumonia.", "Left lower lobe pneumonia.", "Left lower lobe opacity.", True),
    ("general: beats silence", "Left lower lobe pneumonia.", "Left lower lobe opacity.", "No acute disease.", True),
    ("general: device", "Chest tube on the left.", "Left chest tube.", "Support device.", True),
    ("general: abnormal chest", WHOLE, HALF, "Abnormal chest.", True),
    (
        "everywhere at once",
        "Right lower lobe consolidation.",
        "Right lower lobe consolidation.",
        "Bilateral consolidation in all lobes.",
        True,
    ),
    ("both sides", "Small left pneumothorax.", "Small left pneumothorax.", "Small bilateral pneumothoraces.", True),
    (
        "naming all",
        WHOLE,
        HALF,
        "Effusion. Nodule. Edema. Catheter. Consolidation. Pneumothorax. Mass. Fracture. Cardiomegaly. Emphysema.",
        True,
    ),
    # short texts
    ("short: clear lungs", NORMAL, HONEST, "Clear lungs.", True),
    ("short: normal", NORMAL, HONEST, "Normal.", True),
    ("short: unremarkable", NORMAL, HONEST, "Unremarkable.", True),
    ("short: no acute disease", NORMAL, HONEST, "No acute cardiopulmonary abnormality.", True),
    ("short: normal says something", NORMAL, "Normal.", "Scoliosis.", True),
    ("short: one region", NORMAL, "Lungs are clear. Heart is normal.", "Lungs are clear.", True),
    ("more that is true: bones", NORMAL, HONEST, HONEST.replace(" No bony abnormality.", ""), True),
    ("normal template misses the finding", WHOLE, HALF, NORMAL, True),
    ("half told beats nothing told", WHOLE, "Right effusion.", NORMAL, True),
    # severity of the error
    ("a grave false finding costs more", NORMAL, f"{HONEST} Scoliosis.", f"{HONEST} Large pneumothorax.", True),
    (
        "missing what is grave costs more",
        "Right pneumothorax. Mild cardiomegaly.",
        "Right pneumothorax.",
        "Mild cardiomegaly.",
        True,
    ),
    (
        "denying costs more than silence",
        "Right pneumothorax. Left effusion.",
        "Left effusion.",
        "Left effusion. No pneumothorax.",
        True,
    ),
    # no report
    ("refusal", NORMAL, "No acute disease.", "I am unable to analyze this image. Please consult a radiologist.", True),
    ("German", "Small right effusion.", "Small right effusion.", "Kleiner Erguss rechts. Kein Pneumothorax.", True),
    (
        "French",
        "Small right effusion.",
        "Small right effusion.",
        "Petit épanchement pleural droit. Pas de pneumothorax.",
        True,
    ),
    ("questions", NORMAL, HONEST, "Is there an effusion? Is there a pneumothorax?", True),
]
